"""Pushes the metrics to a Pushgateway, over OTLP or by remote write, where nothing can scrape them."""
