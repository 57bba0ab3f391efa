# One image for every callmeter process; the command says which.
FROM python:3.11.14-slim-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml README.md LICENSE NOTICE CHANGELOG.md requirements.lock ./
COPY examples/data examples/data
COPY producers producers
COPY processors processors
COPY sinks sinks
COPY scripts/hatch_compile.py scripts/
ENV CALLMETER_COMPILED=require
# uv takes a hashed lock as constraints, pip does not (docs/decisions/0001).
RUN pip install --no-cache-dir "$(grep -oE '^uv==[0-9.]+' requirements.lock)" \
 && python -m venv /opt/callmeter \
 && uv pip install --no-cache --python /opt/callmeter/bin/python \
      -c requirements.lock --build-constraints requirements.lock \
      '.[collector,processors,sinks,dashboard,prometheus]'

FROM python:3.11.14-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /var/lib/callmeter --create-home callmeter
COPY --from=build /opt/callmeter /opt/callmeter
ENV PATH=/opt/callmeter/bin:$PATH PYTHONUNBUFFERED=1
USER 10001
WORKDIR /var/lib/callmeter
EXPOSE 4248
ENTRYPOINT ["callmeter"]
CMD ["--help"]
