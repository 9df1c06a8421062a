# One image for every process: the command chooses, `riskhub api` by default. Built from the root of
# the repository: `docker build -t riskhub:0.1.0 .`

# The Python that the tests run on.
ARG PYTHON=3.11.14-slim-bookworm

# --- the environment, as the locks pin it, and our wheel in it ------------------------------------
FROM python:${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1
WORKDIR /src

# Dependencies change less often than the code: a layer of their own.
COPY requirements/run.lock requirements/build.lock requirements/
RUN python -m venv /opt/riskhub \
    && /opt/riskhub/bin/pip install --no-deps --require-hashes -r requirements/run.lock \
    && python -m venv /opt/backend \
    && /opt/backend/bin/pip install --no-deps --require-hashes -r requirements/build.lock

COPY pyproject.toml README.md LICENSE dagster.yaml workspace.yaml riskhub.example.yml ./
COPY data data
COPY deploy deploy
COPY api api
COPY riskhub_dagster riskhub_dagster
COPY riskhub riskhub
RUN /opt/backend/bin/pip wheel --no-deps --no-index --no-build-isolation --wheel-dir /wheel . \
    && /opt/riskhub/bin/pip install --no-deps --no-index /wheel/riskhub-*.whl

# --- what runs -----------------------------------------------------------------------------------
FROM python:${PYTHON}
# pg_dump and pg_restore, for `riskhub backup`: of the server's version, or a newer one.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends postgresql-client-15 \
    && rm -rf /var/lib/apt/lists/*
RUN groupadd --gid 10001 riskhub \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/riskhub riskhub \
    && install -d -o riskhub -g riskhub -m 0750 /var/lib/riskhub /var/backups/riskhub
COPY --from=build /opt/riskhub /opt/riskhub

# The file system may be read-only but for /tmp and RISKHUB_HOME.
ENV PATH=/opt/riskhub/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    MPLCONFIGDIR=/tmp \
    RISKHUB_PROFILE=prod \
    RISKHUB_HOME=/var/lib/riskhub
WORKDIR /var/lib/riskhub
USER 10001:10001

# API, Dagster's UI, its code server, a worker's metrics.
EXPOSE 8000 3000 4266 9109

# Of the API; compose.yaml and the manifests say how each other process is asked.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]
CMD ["riskhub", "api"]
