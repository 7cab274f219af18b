// Package compose tests what happens when this package meets other libraries:
// caches, retries, other clients, gRPC. It uses the libraries themselves. Each
// test shows what a user sees, in the right order and in the wrong one.
package compose
