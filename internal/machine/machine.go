// Package machine gives Sessions the clocks and the chance of a simulated machine. Only
// code of this repository can import it.
package machine

import (
	"net/http"
	"time"
)

// A Base is a fincodeauth.Config.Base that stands for a machine. fincodeauth.New uses
// Now instead of time.Now, and Random instead of rand.Float64. The RoundTripper must not
// be nil.
type Base struct {
	http.RoundTripper
	Now    func() time.Time
	Random func() float64
}
