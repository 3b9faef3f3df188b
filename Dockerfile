# Two images: `operator` (without torch) and `trainer` (with torch and DeepSpeed). Neither runs as root.
# The project's code is the last layer, above the dependencies, so that a code change transfers megabytes instead of gigabytes.
FROM debian:bookworm-slim AS base
ENV PYTHONUNBUFFERED=1 UV_SYSTEM_CERTS=1 UV_NO_CACHE=1 UV_LINK_MODE=copy PIP_NO_CACHE_DIR=1
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates python3 python3-venv \
 && rm -rf /var/lib/apt/lists/* \
 && python3 -m venv /opt/uv && /opt/uv/bin/pip install --quiet uv \
 && python3 -m venv --without-pip /opt/venv
ENV PATH=/opt/venv/bin:$PATH VIRTUAL_ENV=/opt/venv PYTHONPATH=/opt/finetune

FROM base AS operator
COPY locks/operator.txt /opt/locks/
RUN /opt/uv/bin/uv pip install --quiet --compile-bytecode --require-hashes --requirement /opt/locks/operator.txt \
 && rm -rf /opt/uv
COPY operator/finetune_operator /opt/finetune/finetune_operator
COPY trainer/finetune_trainer /opt/finetune/finetune_trainer
RUN python -m compileall -q /opt/finetune
USER 1000:1000
ENTRYPOINT ["python", "-m", "finetune_operator"]

FROM base AS trainer
# NCCL opens these libraries for RDMA over InfiniBand and RoCE.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ibverbs-providers libibverbs1 librdmacm1 \
 && rm -rf /var/lib/apt/lists/*
COPY locks/trainer.txt /opt/locks/
RUN /opt/uv/bin/uv pip install --quiet --compile-bytecode --require-hashes --requirement /opt/locks/trainer.txt \
 && rm -rf /opt/uv
COPY trainer/finetune_trainer /opt/finetune/finetune_trainer
RUN python -m compileall -q /opt/finetune
USER 1000:1000
ENTRYPOINT ["python", "-m", "finetune_trainer.agent"]
