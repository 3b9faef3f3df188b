"""From rows of data to what a model reads: tokens, chat templates, images, noise and class labels."""
