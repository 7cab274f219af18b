package main

import "fmt"

// The program prints the status, and only that, to standard output.
func Example() {
	if err := run(); err != nil {
		fmt.Println(err)
	}
	// Output: 200 OK
}
