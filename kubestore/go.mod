module github.com/fincodeauth/fincodeauth/kubestore

go 1.26.0

require (
	github.com/fincodeauth/fincodeauth v0.0.0
	golang.org/x/oauth2 v0.37.0
)

require golang.org/x/sync v0.24.0 // indirect

replace github.com/fincodeauth/fincodeauth => ../
