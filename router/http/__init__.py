"""HTTP below the routes: connections, bodies, security headers, rate limits, the access log, problem+json."""
