# syntax=docker/dockerfile:1
# The operator's image. The build stage does what `make install` does, without the development group.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
RUN python -m venv /opt/moe-operator && python -m venv /opt/build
# Dependencies first: they change less often than the sources.
COPY requirements.lock hack/runtime_requirements.py ./
RUN python runtime_requirements.py requirements.lock > /tmp/runtime.lock \
 && python runtime_requirements.py requirements.lock hatchling > /tmp/build.lock \
 && /opt/moe-operator/bin/python -m pip install --require-hashes --no-deps -r /tmp/runtime.lock \
 && /opt/build/bin/python -m pip install --require-hashes --no-deps -r /tmp/build.lock
COPY pyproject.toml README.md LICENSE ./
COPY operator/ operator/
RUN /opt/build/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir /tmp/wheels . \
 && /opt/moe-operator/bin/python -m pip install --no-deps /tmp/wheels/*.whl \
 && /opt/moe-operator/bin/moe-operator --help > /dev/null \
 && /opt/moe-operator/bin/moe-operator weights --help > /dev/null \
 && /opt/moe-operator/bin/python -m compileall -q /opt/moe-operator

FROM python:${PYTHON}-slim
LABEL org.opencontainers.image.title="moe-operator" \
      org.opencontainers.image.description="Runs mixture-of-experts models on vLLM expert-parallel groups" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/moe-operator/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY --from=build /opt/moe-operator /opt/moe-operator
# Nothing is written but /tmp: run it with a read-only root filesystem.
USER 65532:65532
ENTRYPOINT ["moe-operator"]
CMD ["run"]
