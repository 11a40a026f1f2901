# The server's image, for docker build or buildah build; scripts/image.sh also makes it reproducible.
#   --build-arg VARIANT=gpu         on CUDA, with ONNX Runtime for GPUs
#   --build-arg PYTHON_IMAGE=...    another base with Python 3.11 or newer; CUDA_IMAGE for VARIANT=gpu
ARG VARIANT=cpu
ARG PYTHON_IMAGE=docker.io/library/python:3.13-slim-trixie
ARG CUDA_IMAGE=docker.io/nvidia/cuda:13.0.1-cudnn-runtime-ubuntu24.04

FROM ${PYTHON_IMAGE} AS base-cpu

FROM ${CUDA_IMAGE} AS base-gpu
# Not pinned: distributions replace packages by security updates, and an exact version would soon be gone.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 \
 && rm -rf /var/lib/apt/lists/*

FROM base-cpu AS tools-cpu

FROM base-gpu AS tools-gpu
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3-venv \
 && rm -rf /var/lib/apt/lists/*

# hadolint ignore=DL3006
FROM tools-${VARIANT} AS build
ARG VARIANT
# Time of the last change of the source, written into wheels, so that builds are reproducible.
ARG SOURCE_DATE_EPOCH=0
ENV SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH} PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /build
# Two environments: one with the build tools, and the image's, which has only the server's packages.
RUN python3 -m venv tools && python3 -m venv --without-pip /opt/inferd
COPY requirements/build.txt requirements/${VARIANT}.txt requirements/
# The secrets are for mirrors of the package index: pip's settings, and the mirror's CA.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca.pem,target=/run/secrets/ca.pem \
    if [ -s /run/secrets/ca.pem ]; then export PIP_CERT=/run/secrets/ca.pem; fi \
 && tools/bin/pip install --require-hashes --only-binary :all: --requirement requirements/build.txt \
 && tools/bin/pip --python /opt/inferd/bin/python3 install --no-compile --require-hashes --only-binary :all: \
      --requirement "requirements/${VARIANT}.txt"
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY inferd inferd
# Compiled here, because the image's file system may be read-only; not compared with the sources at startup, because
# those cannot change. The packages' own tests are removed, and of pyarrow what is not for files: servers and headers.
RUN tools/bin/pip wheel --no-index --no-deps --no-build-isolation --wheel-dir wheels . \
 && tools/bin/pip --python /opt/inferd/bin/python3 install --no-index --no-deps --no-compile wheels/*.whl \
 && find /opt/inferd -type d -name tests -prune -exec rm -rf {} + \
 && find /opt/inferd -type d \( -path '*/pyarrow/include' -o -path '*/pyarrow/src' \) -prune -exec rm -rf {} + \
 && find /opt/inferd -path '*/pyarrow/*flight*' -delete \
 && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/inferd/lib

# hadolint ignore=DL3006
FROM base-${VARIANT}
ARG VERSION=0.0.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="inferd" \
      org.opencontainers.image.description="An inference server for ONNX models over gRPC and HTTP" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
# Intruders must not find a package installer. The official images of Python have no compiled modules, which would cost
# each start of the server and of a probe about a second. Text models may name the locale en_US.UTF-8, with which ONNX
# Runtime folds case. Slim images lack it, but have C.UTF-8, whose characters are the same.
RUN rm -rf /usr/local/bin/pip* /usr/local/lib/python3*/site-packages/pip* /usr/local/lib/python3*/ensurepip \
 && python3 -m compileall -q -x '/(site|dist)-packages/' "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
 && { [ -e /usr/lib/locale/en_US.utf8 ] || ln -s C.utf8 /usr/lib/locale/en_US.utf8; }
COPY --from=build /opt/inferd /opt/inferd
ENV PATH=/opt/inferd/bin:${PATH} \
    PYTHONDONTWRITEBYTECODE=1 \
    INFERD_SERVER__HOST=0.0.0.0
# A number, because orchestrators that forbid root cannot look up names. The user owns no files.
USER 65532:65532
WORKDIR /
EXPOSE 8000 8001 8002
STOPSIGNAL SIGTERM
# For the default settings of this image; with TLS or another port, set another command. Kubernetes does not use it.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["inferd", "health", "--service", "liveness"]
ENTRYPOINT ["inferd"]
CMD ["serve"]
