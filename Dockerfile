# One image for every process: serve | worker | migrate | simulator. It holds no database, no embedded server and no tool of development.
#   docker build -t kameng-api .
#   docker run --rm --env-file deploy/.env kameng-api migrate

ARG PYTHON=3.13-slim

FROM python:${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/venv
COPY deploy/requirements-image.lock /build/requirements.lock
# Wheels only: a compiler in the build would mean that something is compiled which nobody looked at.
RUN /opt/venv/bin/pip install --require-hashes --only-binary :all: -r /build/requirements.lock \
    && /opt/venv/bin/pip uninstall --yes pip
COPY src /app/src
RUN /opt/venv/bin/python -m compileall -q /app/src

FROM python:${PYTHON}
RUN groupadd --system --gid 10001 kameng \
    && useradd --system --uid 10001 --gid kameng --home-dir /var/lib/kameng --create-home --shell /usr/sbin/nologin kameng
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app/src /app/src
COPY migrations /app/migrations
COPY alembic.ini LICENSE deploy/healthy.py /app/
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app/src \
    PYTHONUNBUFFERED=1 \
    KAMENG_HOST=0.0.0.0 \
    KAMENG_VAR=/var/lib/kameng
WORKDIR /app
USER kameng
EXPOSE 8000
# Another process of the same image names another URL: deploy/compose.yaml does.
ENV HEALTH_URL=http://127.0.0.1:8000/readyz
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s CMD ["python", "/app/healthy.py"]
ENTRYPOINT ["python", "-m", "kameng_api.cli"]
CMD ["serve"]
