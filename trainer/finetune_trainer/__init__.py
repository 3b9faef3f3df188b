"""The trainer: turns one document into one model. It knows nothing of Kubernetes."""
