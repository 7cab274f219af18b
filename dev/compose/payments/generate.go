// Package payments is a client that oapi-codegen has generated from openapi.yaml.
// The version of oapi-codegen is in go.mod.
package payments

//go:generate go tool oapi-codegen -config oapi-codegen.yaml -o payments.gen.go openapi.yaml
