// Package bench measures fincodeauth beside its peers, in the same run. It has
// no code of its own: all of it are benchmarks, and tests of what is counted and
// not timed. The program in folder report runs them and writes
// docs/performance.md. By hand:
//
//	go test -bench Request -cpu 1,2
//	go test -short -bench . -benchtime 1x   # everything, with small sizes
package bench
