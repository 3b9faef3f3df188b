# A real two-node Kubernetes cluster on this machine (as root); the Makefile includes this file.
DEVCLUSTER := PYTHONPATH=tests/support $(BIN)/python -m devcluster

.PHONY: cluster-build cluster-up cluster-down cluster-status cluster-clean

cluster-build: setup ## compile the commands of the test cluster (about 12 minutes, once)
	@$(DEVCLUSTER) build

cluster-up: setup ## start the test cluster: 2 nodes, registry, S3, Prometheus
	@$(DEVCLUSTER) up

cluster-down: ## stop the test cluster and remove everything except its cache
	@$(DEVCLUSTER) down

cluster-status: ## list the test cluster's components and their logs
	@$(DEVCLUSTER) status

cluster-clean: ## stop the test cluster and remove its cache
	@$(DEVCLUSTER) clean
