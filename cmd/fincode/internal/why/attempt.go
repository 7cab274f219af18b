package why

import "github.com/fincodeauth/fincodeauth/cmd/fincode/internal/events"

// An attempt is one presentation of a refresh token by one of our processes.
type attempt struct {
	token   string
	process events.Process
	journal string
	began   int            // index of the entry
	ended   int            // index of the answer's entry; the number of all entries if there is none
	outcome events.Outcome // "" if there is no answer
	status  int
	next    string
	err     string
}

// attemptsIn returns the attempts, in the order in which they began.
func attemptsIn(entries []events.Entry) []attempt {
	type place struct {
		process events.Process
		token   string
		op      string
	}
	var all []attempt
	open := make(map[place][]int) // indexes in all
	for i, e := range entries {
		at := place{e.Process, e.Token, e.Op}
		switch {
		case e.Op != events.Refresh:
		case e.Kind == events.Presenting:
			open[at] = append(open[at], len(all))
			all = append(all, attempt{token: e.Token, process: e.Process, journal: e.Journal, began: i, ended: len(entries)})
		case e.Kind == events.Answered && len(open[at]) > 0:
			a := &all[open[at][0]]
			open[at] = open[at][1:]
			a.ended, a.outcome, a.status, a.next, a.err = i, e.Outcome, e.Status, e.Next, e.Error
		}
	}
	return all
}

// mayHaveUsed reports whether the attempt may have used the token, as far as its process
// knows.
func (a *attempt) mayHaveUsed() bool { return a.outcome == "" || a.outcome == events.Unknown }

// hasUsed reports whether the attempt used the token: it got the next one.
func (a *attempt) hasUsed() bool {
	return a.outcome == events.Got && a.next != "" && a.next != a.token
}

// comesAfter reports whether the attempt certainly began after another one was refused.
// Only the journal of one machine can say that.
func (a *attempt) comesAfter(refused *attempt) bool {
	return a.journal == refused.journal && a.began > refused.ended
}
