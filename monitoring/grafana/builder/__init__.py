"""The dashboards in monitoring/grafana/dashboards: each module builds one, `python -m grafana.builder` writes them."""
