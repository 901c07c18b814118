"""What predictions are worth: intervals, metrics, contrasts; pure functions of numbers."""
