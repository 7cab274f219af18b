// Package migrate tests the programs that docs/migrate.md shows: each before and after
// it uses fincodeauth.
package migrate
