"""The trainer: turns a TrainSpec into a fine-tuned model. It does not depend on Kubernetes."""
