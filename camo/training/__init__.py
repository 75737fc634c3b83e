"""What trains the filter: settings, crops, the sharing channel, perceptual terms, the objective, validation."""
