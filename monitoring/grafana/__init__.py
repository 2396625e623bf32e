"""What Grafana needs: provisioning, dashboards, and the code that makes them."""
