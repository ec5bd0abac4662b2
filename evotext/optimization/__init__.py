"""What both families use to turn a direction into new weights."""
