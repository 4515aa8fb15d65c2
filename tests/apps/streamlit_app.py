import streamlit as st

n = st.slider("n", 0, 100, 20)
st.write(f"twice n is {n * 2}")
