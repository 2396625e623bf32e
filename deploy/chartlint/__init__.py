"""Checks of the Helm chart, the manifests, the scaling objects and Prometheus' settings for Kubernetes: `make chart`."""
