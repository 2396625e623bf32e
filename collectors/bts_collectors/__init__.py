"""The collectors we ship: each module is a plug-in and takes the same road as anybody's."""
