package fincodeauth

// NewOn is New on a machine whose clock and chance are these: for the
// simulation.
var NewOn = newOn
