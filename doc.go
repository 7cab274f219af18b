// Package fincodeauth keeps FinCode sessions alive under an ordinary
// *http.Client.
package fincodeauth
