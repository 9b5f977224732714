package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/mandate-auth/mandate/engine/audit"
)

// lastEvents is how many records are printed.
const lastEvents = 20

// printTrail prints the newest records, whether the trail is whole, and a summary.
func printTrail(ctx context.Context, w io.Writer, trail *audit.Trail) error {
	if err := trail.Flush(ctx); err != nil { // records are written in batches
		return err
	}
	records, _, err := trail.Query(ctx, audit.Filter{}, lastEvents, "")
	if err != nil {
		return err
	}
	report, err := trail.Verify(ctx)
	if err != nil {
		return err
	}
	summary, err := trail.Summary(ctx, time.Time{}, time.Time{})
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "\nThe audit trail, newest first:\n")
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range records {
		machine := ""
		if r.IsM2M {
			machine = "machine"
		}
		fmt.Fprintf(table, "  %s\t%s\t%s\t%s\t%s\t%s\t%s %s\n", r.Time.Format(time.TimeOnly), r.Type, r.Result, r.Reason,
			cmp.Or(r.ClientID, r.UserID), machine, r.Method, r.Path)
	}
	table.Flush()
	for _, chain := range report.Chains {
		fmt.Fprintf(w, "Chain %s: records %d to %d", chain.Chain, chain.First, chain.Last)
		if chain.Break != nil {
			fmt.Fprintf(w, ", broken at %d: %s", chain.Break.Seq, chain.Break.Fault)
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "Intact: %t. %d records of %d users, %d clients and %d addresses; %d by machines:\n",
		report.Intact(), summary.Records, summary.Users, summary.Clients, summary.Addresses, summary.Machines)
	for _, kind := range slices.Sorted(maps.Keys(summary.ByType)) {
		fmt.Fprintf(w, "  %5d  %s\n", summary.ByType[kind], kind)
	}
	return nil
}
