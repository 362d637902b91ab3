package convert

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// A Bar shows a conversion's progress: a bar with speed and time left on a
// terminal, a line now and then elsewhere.
type Bar struct {
	title    string
	out      io.Writer
	terminal bool
	progress *mpb.Progress
	bar      *mpb.Bar
	last     time.Time
	begun    time.Time
	first    int64
	checking bool
}

// lineEvery is how often a line is written where there is no terminal.
const lineEvery = 5 * time.Second

// NewBar returns a bar that draws on out; nil draws nothing.
func NewBar(out io.Writer, title string) *Bar {
	b := &Bar{title: title, out: out}
	if f, ok := out.(*os.File); ok {
		info, err := f.Stat()
		b.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return b
}

// Update shows how far it is.
func (b *Bar) Update(p Progress) {
	if b.out == nil || p.Total == 0 {
		return
	}
	if p.Checking != b.checking { // a second bar, below the first
		b.Done()
		*b = Bar{title: "checking what was read", out: b.out, terminal: b.terminal, checking: true}
	}
	if b.begun.IsZero() {
		b.begun, b.first = time.Now(), p.Done
		if b.terminal {
			b.progress = mpb.New(mpb.WithOutput(b.out), mpb.WithWidth(40))
			b.bar = b.progress.AddBar(p.Total, mpb.PrependDecorators(decor.Name(b.title+" ")),
				mpb.AppendDecorators(decor.CountersKiloByte("% .1f / % .1f"), decor.Any(b.speed)))
		}
	}
	if b.terminal {
		b.bar.SetCurrent(p.Done)
		return
	}
	if now := time.Now(); now.Sub(b.last) >= lineEvery || p.Done == p.Total {
		b.last = now
		fmt.Fprintf(b.out, "%s: %s of %s%s\n", b.title, size(p.Done), size(p.Total), b.rate(p.Done, p.Total))
	}
}

func (b *Bar) speed(s decor.Statistics) string { return b.rate(s.Current, s.Total) }

// rate is the speed of this run and the time that is left at it.
func (b *Bar) rate(done, total int64) string {
	elapsed := time.Since(b.begun).Seconds()
	if elapsed < 0.1 || done <= b.first {
		return ""
	}
	speed := float64(done-b.first) / elapsed
	left := time.Duration(float64(total-done) / speed * float64(time.Second))
	return fmt.Sprintf(", %.0f MB/s, %v left", speed/1e6, left.Round(time.Second))
}

// Done ends the bar.
func (b *Bar) Done() {
	if b.bar == nil {
		return
	}
	if !b.bar.Completed() {
		b.bar.Abort(false)
	}
	b.progress.Wait()
}
