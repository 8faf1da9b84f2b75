"""Groups that other API servers serve, and the APIService objects that say so."""
