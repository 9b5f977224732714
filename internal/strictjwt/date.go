package strictjwt

import (
	"encoding/json"
	"errors"
	"math"
	"time"
)

// NumericDate reads a NumericDate (RFC 7519 section 2): a float64 or json.Number of
// seconds. Fractions are cut off.
func NumericDate(value any) (time.Time, error) {
	seconds, ok := value.(float64)
	if number, exact := value.(json.Number); exact {
		var err error
		seconds, err = number.Float64()
		ok = err == nil
	}
	// Beyond year 9999 there is no date that anything else could write.
	if !ok || seconds < 1 || seconds > 253402300799 {
		return time.Time{}, errors.New("not a date")
	}
	return time.Unix(int64(math.Floor(seconds)), 0).UTC(), nil
}
