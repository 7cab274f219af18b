// Package integration tests and measures the stores on real databases.
//
// FINCODEAUTH_TEST_POSTGRES, FINCODEAUTH_TEST_MYSQL and FINCODEAUTH_TEST_REDIS
// are the addresses of the databases. Without them, the tests use the standard
// ports on this machine. If a database does not answer, its tests are skipped, or
// fail if FINCODEAUTH_REQUIRE_SERVICES is 1. Each test has its own table or
// prefix, and removes it at the end.
//
// Some tests start servers of their own, because they break them: Redis, Sentinel and
// PostgreSQL. The tests of etcd and Kubernetes start etcd and API servers. All of these
// tests need the programs, and are skipped or fail without them.
package integration
