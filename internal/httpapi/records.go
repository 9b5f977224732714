package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine/audit"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/engine/metrics"
)

// ActionAudit, ActionMetrics and ActionClients are what the routes about them ask
// for, on [ObjectMandate].
const (
	ActionAudit   = "audit"
	ActionMetrics = "metrics"
	ActionClients = "clients"
)

// auditPage is a page of records.
type auditPage struct {
	Events []audit.Record `json:"events"`
	Next   string         `json:"next,omitempty"`
}

func (a *API) writeRecords(w http.ResponseWriter, r *http.Request, f audit.Filter, page authz.Page) error {
	records, next, err := a.config.Audit.Query(r.Context(), f, page.Limit, page.After)
	if err != nil {
		return err
	}
	write(w, http.StatusOK, auditPage{append([]audit.Record{}, records...), next})
	return nil
}

// listAudit answers a page of the app's records, the newest first.
func (a *API) listAudit(w http.ResponseWriter, r *http.Request, p *authz.Principal) error {
	var f audit.Filter
	var kind, result, from, until string
	page, err := pageOf(r, map[string]*string{
		"user_id": &f.UserID, "client_id": &f.ClientID, "ip": &f.IP, "type": &kind, "result": &result, "from": &from, "until": &until,
	})
	if err != nil {
		return err
	}
	f.Type, f.Result = event.Type(kind), event.Result(result)
	if f.From, f.Until, err = period(from, until); err != nil {
		return err
	}
	// Who looks at what others did is recorded itself.
	a.report(r.Context(), event.AuditRead, event.Success, p, "list")
	return a.writeRecords(w, r, f, page)
}

// period reads two times of RFC 3339.
func period(from, until string) (after, before time.Time, err error) {
	for name, of := range map[string]struct {
		text string
		into *time.Time
	}{"from": {from, &after}, "until": {until, &before}} {
		if of.text == "" {
			continue
		}
		if *of.into, err = time.Parse(time.RFC3339, of.text); err != nil {
			return after, before, invalidRequest(name, "must be a time such as 2026-01-31T12:00:00Z")
		}
	}
	return after, before, nil
}

// auditSummary answers what happened in a period, in numbers.
func (a *API) auditSummary(w http.ResponseWriter, r *http.Request, p *authz.Principal) error {
	var from, until string
	if err := queryOf(r, map[string]*string{"from": &from, "until": &until}); err != nil {
		return err
	}
	after, before, err := period(from, until)
	if err != nil {
		return err
	}
	a.report(r.Context(), event.AuditRead, event.Success, p, "summary")
	summary, err := a.config.Audit.Summary(r.Context(), after, before)
	if err != nil {
		return err
	}
	write(w, http.StatusOK, summary)
	return nil
}

// verifyAudit answers whether the app's records are whole.
func (a *API) verifyAudit(w http.ResponseWriter, r *http.Request, p *authz.Principal) error {
	a.report(r.Context(), event.AuditRead, event.Success, p, "verify")
	report, err := a.config.Audit.Verify(r.Context())
	if err != nil {
		return err
	}
	if !report.Intact() {
		a.report(r.Context(), event.AuditBroken, event.Failure, p, "")
	}
	write(w, http.StatusOK, struct {
		Intact bool `json:"intact"`
		audit.Report
	}{report.Intact(), report})
	return nil
}

// myActivity answers a page of what was recorded about the caller.
func (a *API) myActivity(w http.ResponseWriter, r *http.Request) error {
	p, err := a.account(r)
	if err != nil {
		return err
	}
	page, err := pageOf(r, nil)
	if err != nil {
		return err
	}
	records, next, err := a.config.Audit.Query(r.Context(), audit.Filter{UserID: p.ID}, page.Limit, page.After)
	if err != nil {
		return err
	}
	out := struct {
		Events []activity `json:"events"`
		Next   string     `json:"next,omitempty"`
	}{make([]activity, len(records)), next}
	for i, rec := range records {
		out.Events[i] = activity{rec.ID, rec.Time, rec.Type, rec.Result, rec.Reason, rec.SessionID, rec.IP, rec.UserAgent, rec.IsM2M}
		if rec.Actor != "" && rec.Actor != p.ID {
			out.Events[i].IP, out.Events[i].UserAgent = "", "" // those of an operator
		}
	}
	write(w, http.StatusOK, out)
	return nil
}

// activity is a record as the account that it is about sees it: without who among
// the operators did something, and what else is for them.
type activity struct {
	ID        string       `json:"id"`
	Time      time.Time    `json:"timestamp"`
	Type      event.Type   `json:"type"`
	Result    event.Result `json:"result"`
	Reason    string       `json:"reason,omitempty"`
	SessionID string       `json:"session_id,omitempty"`
	IP        string       `json:"ip,omitempty"`
	UserAgent string       `json:"user_agent,omitempty"`
	IsM2M     bool         `json:"is_m2m"`
}

// observer serves what is for those who look after the app: from an internal
// network, or with the permission.
func (a *API) observer(h http.Handler) func(http.ResponseWriter, *http.Request) error {
	guard := a.RequirePermission(ObjectMandate, ActionMetrics)
	return func(w http.ResponseWriter, r *http.Request) error {
		if !a.internal(r) {
			if _, err := guard.run(r); err != nil {
				return err
			}
		}
		h.ServeHTTP(w, r)
		return nil
	}
}

// document serves what is fixed.
func document(contentType string, body []byte) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Cache-Control", "public, max-age=300")
		_, _ = w.Write(body) // the client may be gone
		return nil
	}
}

// observed is where a guard leaves whom it found, for what stands around it.
type observed struct{ principal *authz.Principal }

type observedKey struct{}

// AuditRequests records the requests that next answers, whose guards name who
// called.
func (a *API) AuditRequests(next http.Handler, exclude []string) http.Handler {
	a.observing.Store(true)
	recorded := audit.Middleware(a.config.Events.Record, audit.MiddlewareConfig{
		App: a.config.App, ExcludePaths: exclude, Now: a.config.Now,
		Describe: func(r *http.Request) (userID, clientID string, isM2M bool) {
			if o, ok := r.Context().Value(observedKey{}).(*observed); ok && o.principal != nil {
				return o.principal.ID, o.principal.ClientID, o.principal.IsM2M()
			}
			return "", "", false
		},
	})(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun := a.beginRequest(w, r)
		recorded.ServeHTTP(w, begun.WithContext(context.WithValue(begun.Context(), observedKey{}, &observed{}))) //nolint:contextcheck // it is r's
	})
}

// observe tells what stands around a guard whom it let pass.
func (a *API) observe(r *http.Request, p *authz.Principal) {
	if p == nil || !a.observing.Load() {
		return
	}
	if o, ok := r.Context().Value(observedKey{}).(*observed); ok {
		o.principal = p
	}
}

// measured is what counts a request: nil, which counts nothing, for paths that the
// manifest leaves out.
func (a *API) measured(r *http.Request) *metrics.Collector {
	if a.unmeasured.Match(r.URL) {
		return nil
	}
	return a.config.Metrics
}
