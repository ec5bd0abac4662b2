"""Sinks of metrics while a run goes on: TensorBoard, Weights & Biases, MLflow."""
