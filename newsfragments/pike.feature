Module pike: sources of floods are found and refused, by the script or before it runs.
