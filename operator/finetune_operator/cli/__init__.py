"""The command line: `finetune`, also installed as the kubectl plugin `kubectl finetune`."""
