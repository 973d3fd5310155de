# docker build -t resumable .
# docker run --rm -p 8080:8080 -v "$(pwd)/uploads:/app/uploads" --user "$(id -u)" resumable [flags]
# docker build --build-arg EXTRAS= -t resumable .     leaves out what only Azure, Google Cloud, JWTs and passwords need
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
ARG EXTRAS=all
WORKDIR /src
COPY setup.py pyproject.toml README.md LICENSE ./
COPY resumable resumable
COPY examples examples
COPY twisted twisted
# The last command lets Twisted write its list of plugins while it can; later the process has no right to.
RUN python -m venv /opt/resumable \
 && /opt/resumable/bin/pip install --no-cache-dir --disable-pip-version-check ".${EXTRAS:+[$EXTRAS]}" \
 && /opt/resumable/bin/twistd --help > /dev/null

FROM python:${PYTHON}-slim
LABEL org.opencontainers.image.title="resumable" \
      org.opencontainers.image.description="A resumable upload server (tus 1.0)" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /opt/resumable /opt/resumable
# Open to every uid, so that --user works with a volume that docker makes; a mounted directory keeps its own rights.
# /run/resumable is the default of --run-dir.
RUN install -d -o 10001 -g 10001 -m 1777 /app/uploads /run/resumable
ENV PATH=/opt/resumable/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
VOLUME /app/uploads
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
# Follows RESUMABLE_PORT; whoever sets --port or --listen by flag brings a check of his own.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["python", "-c", \
  "import os, urllib.request as r; r.urlopen('http://127.0.0.1:%s/healthz' % os.environ.get('RESUMABLE_PORT', 8080), timeout=4)"]
# No pid file: one that names PID 1 and survives in a volume would keep the next container from starting.
ENTRYPOINT ["twistd", "-n", "--pidfile=", "resumable"]
