package cli

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"

	"github.com/fincodeauth/fincodeauth/cmd/fincode/internal/failure"
)

const (
	lookEvery = 3 * time.Second // at the store
	drawEvery = time.Second
)

// watch shows the status on the whole terminal until somebody ends it.
func (a *app) watch(ctx context.Context, all bool) error {
	in, out := terminal(a.In), terminal(a.Out)
	if in == nil || out == nil {
		return failure.New(failure.Usage, "--watch needs a terminal: leave it out, or use --json in a script")
	}
	lookCtx, stop := context.WithCancel(ctx)
	var looking sync.Mutex
	defer looking.Lock() // the last look has ended
	defer stop()
	look := func() tea.Msg {
		looking.Lock()
		defer looking.Unlock()
		views, err := a.views(lookCtx, all)
		return looked{views, err, time.Now()}
	}
	program := tea.NewProgram(screen{look: look, styles: newStyles(a.hasColors()), now: time.Now()},
		tea.WithInput(in), tea.WithOutput(out),
		tea.WithoutSignalHandler(), // main has one
		tea.WithEnvironment([]string{"TERM=" + a.Getenv("TERM"), "COLORTERM=" + a.Getenv("COLORTERM"), "NO_COLOR=" + a.Getenv("NO_COLOR")}),
	)
	// tea.WithContext would not wait for the goroutine that reads the keys.
	stopQuit := context.AfterFunc(ctx, program.Quit)
	defer stopQuit()
	_, err := program.Run()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// A screen is what watch shows. It is a tea.Model, so each Update returns the next one.
type screen struct {
	look   tea.Cmd // looks at the store
	styles styles
	width  int // of the terminal, in columns; 0: not known yet
	now    time.Time
	last   looked
}

// A looked is what a look at the store has found.
type looked struct {
	views []statusView
	err   error
	at    time.Time // zero: nobody has looked yet
}

type (
	redraw    time.Time
	lookAgain struct{}
)

// Init implements tea.Model.
func (s screen) Init() tea.Cmd { return tea.Batch(s.look, nextDraw()) }

func nextDraw() tea.Cmd { return tea.Tick(drawEvery, func(t time.Time) tea.Msg { return redraw(t) }) }

// Update implements tea.Model.
func (s screen) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		s.width = msg.Width
	case redraw:
		s.now = time.Time(msg)
		return s, nextDraw()
	case looked:
		s.last, s.now = msg, time.Now()
		return s, tea.Tick(lookEvery, func(time.Time) tea.Msg { return lookAgain{} })
	case lookAgain:
		return s, s.look
	case tea.KeyPressMsg:
		switch msg.String() {
		case "q", "esc", "ctrl+c":
			return s, tea.Quit
		}
	}
	return s, nil
}

// View implements tea.Model.
func (s screen) View() tea.View {
	parts := []string{s.styles.dim.Render(s.headline()), ""}
	switch {
	case s.last.err != nil:
		parts = append(parts, s.wrapped(failure.Of(s.last.err, "").Line()))
	case s.last.at.IsZero():
	case len(s.last.views) == 0:
		parts = append(parts, s.wrapped("There are no profiles. Log in with: fincode login"))
	}
	for _, v := range s.last.views {
		parts = append(parts, s.show(v), "")
	}
	view := tea.NewView(strings.Join(parts, "\n"))
	view.AltScreen = true
	return view
}

func (s screen) headline() string {
	if s.last.at.IsZero() {
		return "looking at the store …  q: quit"
	}
	return fmt.Sprintf("seen %s ago  q: quit", span(s.now.Sub(s.last.at)))
}

// show returns a view with its texts wrapped to the terminal's width.
func (s screen) show(v statusView) string {
	var lines []string
	for _, row := range v.rows(s.now) {
		style := s.styles.plain
		if row.label == labelState {
			style = s.styles.of(v)
		}
		label := s.styles.dim.Width(labelWidth).Render(row.label)
		lines = append(lines, lipgloss.JoinHorizontal(lipgloss.Top, label, style.Width(s.textWidth()).Render(row.text)))
	}
	return strings.Join(lines, "\n")
}

// textWidth is the width of the second column.
func (s screen) textWidth() int {
	if s.width == 0 {
		return 0 // lipgloss does not wrap
	}
	return max(10, s.width-labelWidth)
}

func (s screen) wrapped(text string) string { return s.styles.plain.Width(s.width).Render(text) }

type styles struct{ plain, dim, good, bad, unknown lipgloss.Style }

func newStyles(colors bool) styles {
	plain := lipgloss.NewStyle()
	if !colors {
		return styles{plain, plain, plain, plain, plain}
	}
	return styles{plain, plain.Faint(true), plain.Foreground(lipgloss.Green), plain.Foreground(lipgloss.Red).Bold(true), plain.Foreground(lipgloss.Yellow)}
}

func (s styles) of(v statusView) lipgloss.Style {
	switch v.State {
	case stateUsable:
		return s.good
	case stateLoginNeeded:
		return s.bad
	}
	return s.unknown
}
