package prom

import "github.com/prometheus/client_golang/prometheus"

// The series. The label app comes first in each.
var (
	validated = series("auth_tokens_validated_total",
		"Credentials that were accepted.")
	successRate = series("auth_success_rate",
		"Share of accepted credentials in all that were checked, in percent; NaN before the first.")
	durationAvg = series("auth_validation_duration_avg_ms",
		"Mean duration of the measured validations in milliseconds; NaN before the first.")
	failed = series("auth_tokens_failed_total",
		"Credentials that were refused, by the type of error.", "error")
	duration = series("auth_validation_duration_seconds",
		"Duration of the measured validations, of which there is one in 16 unless the service measures all.")
	logins = series("auth_logins_total",
		"Attempts to sign in, by how they ended.", "result")
	refreshes = series("auth_refreshes_total",
		"Attempts to refresh a session, by how they ended.", "result")
	denials = series("auth_denials_total",
		"Requests that were refused, by the code of the answer.", "code")
	limited = series("auth_rate_limited_total",
		"Requests over a rate limit, by rule.", "rule")
	lookups = series("auth_cache_lookups_total",
		"Lookups in caches, by whether they were answered there.", "cache", "result")
	clientTokens = series("auth_client_tokens_issued_total",
		"Access tokens that clients got for their credentials.")
	feedAge = series("auth_revocation_feed_age_seconds",
		"Age of the view of revocations.")
	policyAge = series("auth_policy_age_seconds",
		"Age of the policy that decides.")
	database = series("auth_database_command_duration_seconds",
		"Duration of commands of the database, failed ones included.", "command")
	auditDropped = series("auth_audit_events_dropped_total",
		"Audit events that were lost because nothing took them in time.")

	all = []*prometheus.Desc{
		validated, successRate, durationAvg, failed, duration, logins, refreshes, denials, limited, lookups, clientTokens,
		feedAge, policyAge, database, auditDropped,
	}
)

func series(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, append([]string{"app"}, labels...), nil)
}
