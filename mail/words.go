package mail

import (
	"fmt"
	"strconv"
	"time"

	"golang.org/x/text/language"
)

// words are how a language writes times.
type words struct {
	// units are second, minute, hour and day, one and several of each.
	units  [4][2]string
	months [12]string
	date   string // of day, month, year and time
}

var (
	english = &words{
		units:  [4][2]string{{"second", "seconds"}, {"minute", "minutes"}, {"hour", "hours"}, {"day", "days"}},
		months: [12]string{"January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"},
		date:   "%d %s %d, %s UTC",
	}
	german = &words{
		units:  [4][2]string{{"Sekunde", "Sekunden"}, {"Minute", "Minuten"}, {"Stunde", "Stunden"}, {"Tag", "Tage"}},
		months: [12]string{"Januar", "Februar", "März", "April", "Mai", "Juni", "Juli", "August", "September", "Oktober", "November", "Dezember"},
		date:   "%d. %s %d, %s Uhr (UTC)",
	}
	// neutral is for languages that an overlay adds: the symbols of the SI and ISO 8601.
	neutral = &words{units: [4][2]string{{"s", "s"}, {"min", "min"}, {"h", "h"}, {"d", "d"}}}
)

func wordsOf(lang string) *words {
	base, _ := language.Make(lang).Base()
	switch base.String() {
	case "en":
		return english
	case "de":
		return german
	default:
		return neutral
	}
}

// duration writes d in the largest unit that divides it, rounded down to whole minutes
// from one minute on, hours from six and days from three: nothing may seem to be good for
// longer than it is.
func (w *words) duration(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d >= 3*day:
		d = d.Truncate(day)
	case d >= 6*time.Hour:
		d = d.Truncate(time.Hour)
	case d >= time.Minute:
		d = d.Truncate(time.Minute)
	}
	unit, size := 0, time.Second
	switch {
	case d >= day && d%day == 0:
		unit, size = 3, day
	case d >= time.Hour && d%time.Hour == 0:
		unit, size = 2, time.Hour
	case d >= time.Minute:
		unit, size = 1, time.Minute
	}
	n := int64(d / size)
	form := 1
	if n == 1 {
		form = 0
	}
	return strconv.FormatInt(n, 10) + " " + w.units[unit][form]
}

func (w *words) time(t time.Time) string {
	t = t.UTC()
	if w.date == "" {
		return t.Format("2006-01-02 15:04 UTC")
	}
	return fmt.Sprintf(w.date, t.Day(), w.months[t.Month()-1], t.Year(), t.Format("15:04"))
}
