// Package integration tests the stores on the databases themselves, and
// measures them there.
//
// The databases are at FINCODEAUTH_TEST_POSTGRES, FINCODEAUTH_TEST_MYSQL and
// FINCODEAUTH_TEST_REDIS, or else at their standard ports on this machine. Tests
// on one that is not there are skipped, or fail if FINCODEAUTH_REQUIRE_SERVICES
// is 1. Each test has a table, or prefix, of its own, and removes it.
package integration
