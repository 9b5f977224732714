package audit

import "slices"

// Fault says in a stable word what is wrong with a chain.
type Fault string

// The faults.
const (
	// Altered is a record whose MAC is not that of its content: a field was changed,
	// it was moved, or it was made without the key.
	Altered Fault = "altered"
	// Malformed is a document that has not the form of a record.
	Malformed Fault = "malformed"
	// Missing is a record that has not expired and is gone, before the document that
	// is named or after the last.
	Missing Fault = "missing"
	// Unlinked is a genuine record that does not follow the one before it.
	Unlinked Fault = "unlinked"
	// Doubled is a second record with the same number.
	Doubled Fault = "doubled"
	// HeadMissing is a chain without its head.
	HeadMissing Fault = "head_missing"
	// HeadAltered is a head that is not signed.
	HeadAltered Fault = "head_altered"
	// Stray is a document in the chain that is neither a record nor its head.
	Stray Fault = "stray"
	// Forgotten is a chain that goes less far than another chain, or a head given
	// to Verify, says.
	Forgotten Fault = "forgotten"
)

// Break is the first place where a chain is broken.
type Break struct {
	Fault Fault `json:"fault"`
	// Seq is the number of the record that is wrong or missing, 0 where it has none.
	Seq int64 `json:"seq,omitempty"`
	// RecordID is the document where it shows: the wrong one, or the one after what is
	// missing. It is empty where there is none.
	RecordID string `json:"record_id,omitempty"`
}

// ChainReport is what was found of one chain.
type ChainReport struct {
	Chain string `json:"chain"`
	// Records is how many were verified, First and Last are the numbers of the
	// first and the last of them. What comes before First has expired.
	Records int64 `json:"records"`
	First   int64 `json:"first,omitempty"`
	Last    int64 `json:"last,omitempty"`
	// Head is how far the chain verifiably goes. Keep it outside of the database.
	Head Head `json:"head"`
	// Closed says that the instance ended the chain in order. Otherwise it runs, or
	// it has died and up to a second of its newest records is not covered.
	Closed bool `json:"closed"`
	// Break is nil for a chain that is whole.
	Break *Break `json:"break,omitempty"`
}

// Report is what [Trail.Verify] has found.
type Report struct {
	// Chains are the app's chains, oldest first.
	Chains []ChainReport `json:"chains"`
	// Unchained is how many records are in no chain, so that nothing proves them:
	// those from before the trail was tamper-evident, or forgeries. It stops to count
	// at 10,000.
	Unchained int64 `json:"unchained"`
}

// Intact reports whether every chain is whole and every record is in one.
func (r Report) Intact() bool {
	return r.Unchained == 0 && !slices.ContainsFunc(r.Chains, func(c ChainReport) bool { return c.Break != nil })
}

// Heads returns how far the chains go, for a later Verify.
func (r Report) Heads() []Head {
	var heads []Head
	for _, c := range r.Chains {
		if c.Head.Seq > 0 && c.Break == nil {
			heads = append(heads, c.Head)
		}
	}
	return heads
}
