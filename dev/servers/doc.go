// Package servers has no code. Its module pins the servers that package integration
// starts and that Debian does not have: etcd, and the API server of Kubernetes. They are
// in a module of their own because nothing else needs what they need. To build them, see
// CONTRIBUTING.md.
//
// Kubernetes replaces its k8s.io modules by folders of its repository. Here, the same
// modules come from their own releases: v1.37.2 belongs to v0.37.2.
package servers
