package kubestore

// InClusterFrom is InCluster with another environment and another folder.
var InClusterFrom = inCluster
