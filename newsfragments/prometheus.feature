The module prometheus shows statistics, what a script route adds, and messages, answers and routes with latency histograms to Prometheus.
