# One image for every callmeter process; the command says which.
FROM python:3.11.14-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE NOTICE CHANGELOG.md requirements.lock ./
COPY producers producers
COPY processors processors
COPY sinks sinks
RUN python -m venv /opt/callmeter \
 && /opt/callmeter/bin/pip install --no-cache-dir '.[collector,processors,sinks,prometheus]' -c requirements.lock

FROM python:3.11.14-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /var/lib/callmeter --create-home callmeter
COPY --from=build /opt/callmeter /opt/callmeter
ENV PATH=/opt/callmeter/bin:$PATH PYTHONUNBUFFERED=1
USER 10001
WORKDIR /var/lib/callmeter
EXPOSE 4248
ENTRYPOINT ["callmeter"]
CMD ["--help"]
