"""What is kept of traffic: windows of it, the items for a while where that is asked for, labels that come late."""
