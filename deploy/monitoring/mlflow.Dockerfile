# MLflow's server, with a user and a directory of its own. The version is the one that octet is tried with.
ARG PYTHON=python:3.12-slim
FROM ${PYTHON}
RUN pip install --no-cache-dir mlflow==3.17.2
RUN mkdir /mlflow && chown 10001:10001 /mlflow && chmod 0700 /mlflow
USER 10001:10001
ENTRYPOINT ["mlflow"]
