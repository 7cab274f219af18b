// Package compose tests what happens when this package meets other libraries:
// retries, caches, circuit breakers, rate limits, tracing, reverse proxies, other
// clients, gRPC, HTTP/2, websockets, server-sent events and large bodies. It uses the
// libraries themselves. Each test shows what a user sees, in the right order and in
// the wrong one.
package compose
