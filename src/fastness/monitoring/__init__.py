"""What comes after release: is what is served still what it was made for, and what is done if it is not?"""
