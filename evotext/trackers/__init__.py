"""Where metrics go while a run goes on: files and TensorBoard, Weights & Biases, MLflow."""
