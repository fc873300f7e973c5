"""What loadtest/run is made of: processes, their accounting, proxies, workloads, load tools and figures."""
